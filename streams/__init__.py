"""The line: PRICE, LEDGER and WATCH as thin Faust agents over pure rules."""
