"""The contract between planning and acting: grammars as data, strict parsers, refusals with a position and a
reason."""
