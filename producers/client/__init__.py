"""The producer: a bounded queue, a sender with its connection, and a spool on disk. It never blocks a call."""
