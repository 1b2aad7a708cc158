#!/bin/sh
# What this machine lacks is said at once, before anything is downloaded: sh .ci/tools.sh [java] [maven]; Python always.
python=${PYTHON:-python3}
lacks= debian= fedora= macos=

lack() { # what, why, package of Debian, of Fedora, of Homebrew
    lacks="$lacks
  $1: $2"
    debian="$debian${3:+ $3}" fedora="$fedora${4:+ $4}" macos="$macos${5:+ $5}"
}

# "3.11 new whole", "3.9 old whole", "3.12 new bare": Debian leaves out what `python3 -m venv` needs
found=$("$python" -c '
import sys
try:
    import ensurepip, venv
    whole = "whole"
except ImportError:
    whole = "bare"
print("%d.%d" % sys.version_info[:2], "old" if sys.version_info < (3, 11) else "new", whole)' 2>/dev/null)
need='Python 3.11 or newer'
another='another one is named so: make PYTHON=python3.12 ...'
case $found in
    *" new whole") ;;
    *" new bare") lack "python${found%% *}-venv" "'$python' cannot make a virtual environment" "python${found%% *}-venv" python3 python ;;
    *" old "*) lack "$need" "'$python' is ${found%% *}; $another" "python3 python3-venv" python3 python ;;
    *) lack "$need" "'$python' was not found or does not run; $another" "python3 python3-venv" python3 python ;;
esac

for tool in "$@"; do
    case $tool in
        java)
            java=${JAVA_HOME:+$JAVA_HOME/bin/java}
            [ -n "$java" ] && [ -x "$java" ] || java=java
            # openjdk version "17.0.9" 2023-10-17, java version "1.8.0_392"; the stub of macOS fails without a version
            said=$("$java" -version 2>&1)
            version=${said#*' version "'}
            [ "$version" = "$said" ] && version=
            version=${version%%\"*}
            major=${version%%[!0-9]*}
            if [ -z "$major" ]; then
                lack "Java 17 or newer" "'$java' was not found or does not run" default-jre-headless java-21-openjdk-headless temurin
            elif [ "$major" -lt 17 ]; then
                lack "Java 17 or newer" "'$java' is $version; another one is named by JAVA_HOME" default-jre-headless java-21-openjdk-headless temurin
            fi
            ;;
        maven) command -v mvn >/dev/null 2>&1 || lack Maven "'mvn' was not found" maven maven maven ;;
        *) echo "tools.sh: '$tool' is none of java, maven" >&2; exit 2 ;;
    esac
done
[ -z "$lacks" ] && exit 0

{
    echo "tollmeter needs what this machine lacks:$lacks"
    echo "Install it, then try again:"
    echo "  Debian, Ubuntu: sudo apt install$debian"
    echo "  Fedora:         sudo dnf install$fedora"
    echo "  macOS:          brew install$macos"
} >&2
exit 2
