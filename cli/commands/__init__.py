"""Signatures and help texts of the commands. What a command does is imported when it runs, so `--help` stays fast."""
