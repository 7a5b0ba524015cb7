"""Finds the repeated blocks and their linears in any decoder, loads one block at a time, runs it suspended."""
