"""Artifacts as zips over HTTP, streamed; app.py adds the route to the served page."""

from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from ftapp.contract.errors import FtappError
from ftapp.studio import Studio


def serve(app: Any, studio: Studio) -> None:
    """Answer GET /artifacts/RUN/NUMBER.zip from now on."""

    def download(request: Request) -> Response:
        try:
            name, pieces = studio.archive(request.path_params["run"], request.path_params["number"])
        except FtappError as error:
            return PlainTextResponse(str(error), 404)
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
        return StreamingResponse(pieces, media_type="application/zip", headers=headers)

    # before Gradio's own, one of which takes any path
    app.router.routes.insert(0, Route("/artifacts/{run}/{number}.zip", download, methods=["GET"]))
