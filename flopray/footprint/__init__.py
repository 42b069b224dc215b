"""From joules of boards to what is paid and emitted for them: kilowatt-hours at the wall, CO2e and money.

`bill.bill_of` makes a `Bill` of energy and hours; `assumptions` are the numbers that are not measured, each with its
range and its source; `country` looks up the intensity of a country's grid. Pure: imports neither torch nor Ray.
"""
