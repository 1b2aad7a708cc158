"""The metering proxy: a provider behind an address of ours, with the guard in front and a record after each call."""
