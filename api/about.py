"""What clients and routers ask about the server, and the one thing they may tell it: flush.

The names are those of OpenAI (models), vLLM (version) and SGLang (the two ``info`` and ``flush``),
whose router and benchmark ask for them. No path of this machine is in any answer.
"""

from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import Response

from .errors import engine_failed, no_such_model
from .protocol import Flushed, ModelCard, ModelInfo, ModelList, ServerInfo, Version
from .replies import json_reply
from .serving import Serving


async def models(request: Request) -> Response:
    """The models that are served: one."""
    return json_reply(ModelList([_card(request.app.state.serving)]))


async def model(request: Request) -> Response:
    """The model of that name, which may have slashes in it."""
    serving: Serving = request.app.state.serving
    name = request.path_params["name"]
    if name != serving.model:
        raise no_such_model(name, serving.model)
    return json_reply(_card(serving))


def _card(serving: Serving) -> ModelCard:
    return ModelCard(serving.model, serving.created, serving.context)


async def health(request: Request) -> Response:
    """Answers 200 as long as the engine runs."""
    serving: Serving = request.app.state.serving
    if serving.thread.error:
        raise engine_failed("the engine has stopped; restart the server")
    return Response()


async def server_version(request: Request) -> Response:
    """The version of this program."""
    return json_reply(Version(version("minisgl-tui")))


async def server_info(request: Request) -> Response:
    """How the server was set up."""
    serving: Serving = request.app.state.serving
    config = serving.thread.engine.config
    return json_reply(
        ServerInfo(
            model_path=serving.model,
            served_model_name=serving.model,
            version=version("minisgl-tui"),
            context_length=serving.context,
            max_total_num_tokens=config.capacity,
            max_running_requests=config.max_running_requests,
            max_batch_tokens=config.max_batch_tokens,
            page_size=config.block_size,
            schedule_policy=config.schedule_policy,
        )
    )


async def model_info(request: Request) -> Response:
    """What is served, as SGLang's router asks."""
    serving: Serving = request.app.state.serving
    return json_reply(
        ModelInfo(
            model_path=serving.model,
            served_model_name=serving.model,
            max_context_length=serving.context,
            vocab_size=serving.vocab_size,
            eos_token_ids=list(serving.thread.engine.config.eos_token_ids),
        )
    )


async def flush_cache(request: Request) -> Response:
    """Forgets every cached prefix that no running request holds."""
    thread = request.app.state.serving.thread
    return json_reply(Flushed(await thread.ask(thread.engine.reset_prefix_cache)))
