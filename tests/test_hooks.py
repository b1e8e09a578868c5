"""Hooks leave the model as they found it, whatever happens inside."""

import pytest
import torch
from torch import nn

from explorer.hooks import capture, edited


class Block(nn.Module):
    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, str]:
        return hidden_states + 1, "rest"


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.reached = Block(), Block(), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(hidden_states=x)[0]
        x = self.second(x)[0]
        self.reached += 1
        return x


@pytest.fixture
def stack() -> Stack:
    return Stack()


def test_an_edit_replaces_the_hidden_states_and_keeps_the_rest_of_the_output(stack: Stack):
    with edited(stack.first, lambda h: h * 10):
        assert stack(torch.tensor([1.0])).item() == 21
        assert stack.first(torch.tensor([1.0]))[1] == "rest"
    assert stack(torch.tensor([1.0])).item() == 3


def test_an_edit_is_gone_after_an_exception(stack: Stack):
    with pytest.raises(RuntimeError, match="inside"), edited(stack.first, lambda h: h * 10):
        raise RuntimeError("inside")
    assert not stack.first._forward_hooks


def test_capturing_stops_at_the_module_and_leaves_no_hook(stack: Stack):
    assert capture(stack.first, lambda: stack(torch.tensor([1.0]))).item() == 2
    assert capture(stack.first, lambda: stack(torch.tensor([1.0])), before=True).item() == 1
    assert capture(stack.second, lambda: stack(torch.tensor([1.0])), before=True).item() == 2
    assert stack.reached == 0
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in stack.modules())


def test_an_error_in_the_model_comes_through_and_leaves_no_hook(stack: Stack):
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        capture(stack.first, fail)
    assert not stack.first._forward_hooks
