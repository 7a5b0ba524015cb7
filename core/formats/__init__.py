"""Solved linears to the bytes, configs and names that loaders expect, and back; every transpose is done here."""
