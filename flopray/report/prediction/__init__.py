"""How well fitted models predict: tables of their errors on rows that were held out, and figures."""
