"""`math`: problems in free text with an answer that is compared as a value."""
