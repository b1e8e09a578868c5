"""Read or replace what a module gives out; the model is always left as it was found."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class _Reached(Exception):
    """The forward pass has come to the hook point; nothing after it is needed."""


def _hidden(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """A block's hidden states: transformers' blocks give a tensor or a tuple that begins with it."""
    return output if isinstance(output, Tensor) else output[0]


@contextmanager
def edited(module: nn.Module, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace the hidden states that `module` gives out while the context lasts.

    Args:
        module: A transformer block.
        edit: Hidden states `[batch, pos, d_model]` -> what goes on instead, same shape and dtype.
    """

    def hook(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        changed = edit(_hidden(output))
        return changed if isinstance(output, Tensor) else (changed, *output[1:])

    handle = None
    try:
        handle = module.register_forward_hook(hook)
        yield
    finally:
        if handle is not None:
            handle.remove()


def capture(module: nn.Module, run: Callable[[], object], *, before: bool = False) -> Tensor:
    """Run a forward pass up to `module` and take its hidden states; what lies behind it is not computed.

    Args:
        module: A transformer block.
        run: Starts the forward pass.
        before: Take what goes into the module instead of what comes out.
    Returns:
        Hidden states `[batch, pos, d_model]`.
    """
    taken: list[Tensor] = []

    def take_output(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        taken.append(_hidden(output))
        raise _Reached

    def take_input(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        taken.append(args[0] if args else kwargs["hidden_states"])
        raise _Reached

    handle = None
    try:
        handle = (
            module.register_forward_pre_hook(take_input, with_kwargs=True)
            if before
            else module.register_forward_hook(take_output)
        )
        with torch.inference_mode():
            run()
    except _Reached:
        pass
    finally:
        if handle is not None:
            handle.remove()
    return taken[0]
