"""What `attacks.py` attacks with: one module a campaign, and what they share (records, children, runs, the
table)."""
