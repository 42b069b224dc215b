"""Names of mappings whose values differ in type: each says what the values are, and who checks them.

`dict[str, Any]` appears in such a definition alone; other code uses one of these names, a typed class, or a mapping of
one type. Standard library only.
"""

from __future__ import annotations

from typing import Any

#: A JSON object, about to be written or just read. Its reader checks what it takes from it.
Json = dict[str, Any]

#: Values of a workload's fields or of settings, by name. The `Field` or `Setting` says what each may be, and checks it.
Values = dict[str, Any]

#: Keyword arguments of one call, each of the type of its parameter.
Arguments = dict[str, Any]
