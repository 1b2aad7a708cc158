"""What an administrator does: set-up, policies, corrections, dead letters, verification."""
