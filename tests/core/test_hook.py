import torch

from whit.core.hook import Hook


def test_a_bare_hook_changes_nothing():
    hook, loss = Hook(), torch.ones(())
    assert hook.loss(loss, torch.zeros(2), None) is loss
    assert hook.before_step() is hook.after_step() is hook.after_epoch() is hook.close() is None
    assert hook.state_dict() == {}
    assert hook.load_state_dict({}) is None
