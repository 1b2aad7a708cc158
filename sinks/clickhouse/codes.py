"""ClickHouse's own numbers of errors: what blames the rows of an insert, and what passes."""

# Answers to an insert that blame the rows: sent again they fail again, so the caller sorts out the culprit. Any other
# answer (too many parts, no memory, no disk, wrong password, missing table, an older server) leaves the rows innocent:
# they wait.
ROW_CODES = frozenset(
    {
        6,
        23,
        24,
        25,
        26,
        27,
        32,
        33,
        87,  # text or stream that cannot be parsed, or ends too early
        38,
        41,
        53,
        69,
        70,
        72,  # dates, types, bounds, conversions, numbers
        117,
        128,
        131,
        190,
        321,
        349,  # incorrect data, too large arrays and strings, sizes, ranges, NULL
        376,
        407,
        441,
        467,
        469,
        501,
        636,
        675,
        676,
        691,  # UUID, decimal, truth, constraint, no columns, IP, enum
    }
)

# Files of the engine that it cannot read, as one that was being merged while the disk was full: its next start puts
# them aside, and takes what they were merged from. No statement is to blame.
BROKEN_FILES = frozenset({32, 33, 40, 226, 228, 246})

# Answers to a statement that pass: the same statement may work later. All others are final.
PASSING_CODES = frozenset(
    {
        159,
        160,
        202,
        203,
        209,
        210,
        225,
        241,
        242,
        243,
        252,
        279,
        285,
        319,
        394,
        425,
        999,  # load, disk, network
        60,
        81,
        192,
        193,
        194,
        497,
        516,  # not set up, or not for this user
        *BROKEN_FILES,
    }
)


UNKNOWN_TABLE, UNKNOWN_DATABASE = 60, 81
