"""What a way of reasoning costs before it is run: calls, tokens, FLOP and bytes, from a measurement of its parts."""
