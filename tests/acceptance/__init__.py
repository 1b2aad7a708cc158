"""One row of the requirements each. A package, so that the stack of the rows ends with the last of them."""
