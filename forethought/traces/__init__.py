"""The trees that a run has saved: read from its directory, judged, and found again by what happened in
them."""
