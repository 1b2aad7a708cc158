"""Who spent how much on what: questions to the ledger and the forms of their answers, for commands and the server."""
