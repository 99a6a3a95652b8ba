"""What leaves for the browser: artifacts as zips over HTTP, streamed; files of a studio's as Gradio's own take them."""

from pathlib import Path

from gradio.context import LocalContext
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from ftapp.contract.errors import FtappError
from ftapp.studios import Studios
from ftapp.ui.gate import ASKER


def offered(path: Path) -> str:
    """The path of a file that a handler gives to be saved; Gradio takes none from a home that it was not told of."""
    page = LocalContext.blocks.get(None)
    if page is not None and str(path) not in page.allowed_paths:
        page.allowed_paths.append(str(path))
    return str(path)


def routes(studios: Studios) -> list[Route]:
    """GET /artifacts/RUN/NUMBER.zip, of whoever asks."""

    def download(request: Request) -> Response:
        try:
            studio = studios.of(request.scope[ASKER].person)
            name, pieces = studio.archive(request.path_params["run"], request.path_params["number"])
        except FtappError as error:
            return PlainTextResponse(str(error), 404)
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
        return StreamingResponse(pieces, media_type="application/zip", headers=headers)

    return [Route("/artifacts/{run}/{number}.zip", download, methods=["GET"])]
