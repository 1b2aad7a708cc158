"""Around one HTTP call to a model API: what was asked, what was answered, what it cost."""
