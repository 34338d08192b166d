"""Make logs: ask every candidate every query, and store what came back and what it was worth."""
