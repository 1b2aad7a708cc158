"""Rules about money: which rate holds, and what a call costs."""
