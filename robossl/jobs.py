"""Jobs of the other packages, named as text: nothing of them is imported before it is asked for."""

from __future__ import annotations

JOBS = {  # command: module:function
    "serve": "robossl_serving.command:serve",
}
