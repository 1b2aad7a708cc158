"""What rules would have told of one's own history."""
