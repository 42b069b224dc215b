"""The look of all figures: style, scales, units."""
