"""Pure rules: no clock, no I/O, no logging, no Faust. Time, randomness and prices come in as arguments."""
