"""``/docs``: the API to try out in a browser that may have no way to the internet.

FastAPI's own page takes Swagger UI from a content delivery network. Here its files come from the
package `fastapi-offline`, of which nothing else is used.
"""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.requests import Request
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles

_FILES: Final = "/docs/files"


def add_docs(app: FastAPI) -> None:
    """Serve ``/docs`` and the files it needs. `app` must have been made with ``docs_url=None``."""
    app.mount(_FILES, StaticFiles(packages=[("fastapi_offline", "static")]), name="docs-files")
    app.add_api_route("/docs", _docs, include_in_schema=False)
    app.add_api_route("/", _to_docs, include_in_schema=False)


async def _to_docs(request: Request) -> RedirectResponse:
    return RedirectResponse(f"{request.scope.get('root_path', '')}/docs")


async def _docs(request: Request) -> HTMLResponse:
    root = request.scope.get("root_path", "")
    return get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title="ticketrush: the API",
        swagger_js_url=f"{root}{_FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{_FILES}/swagger-ui.css",
        swagger_favicon_url=f"{root}{_FILES}/favicon.png",
    )
