"""Power, temperature, clock and memory of devices over time, with named regions as bands.

`figure.draw_series` writes images and, with plotly, an interactive page (`series_page.js`).
"""
