"""All of Faust and of consuming: what a stage runs on."""
