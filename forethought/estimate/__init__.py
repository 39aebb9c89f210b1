"""What a recipe will take, before anything is downloaded: tokens, floating-point operations, memory by part
and time on a machine.

    shapes    a model's shape, from a config.json or a short table; parameters and bytes of KV cache exactly
    tokens    how many tokens each stage samples and trains on
    memory    what lies on the device in each phase of a step
    hardware  what a machine has
    account   all of it for one recipe, and what to change where it does not fit
    show      as lines of text, every assumption among them

Arithmetic only; nothing here loads torch. Exact are parameters, bytes of weights, optimizer and KV cache, and
upper bounds of tokens; the rest stands on the assumptions that are printed with it.
"""

from forethought.estimate.account import estimate as estimate
from forethought.estimate.hardware import HARDWARE as HARDWARE
from forethought.estimate.hardware import cpu as cpu
from forethought.estimate.hardware import this_machine as this_machine
from forethought.estimate.show import as_json as as_json
from forethought.estimate.show import lines as lines
from forethought.estimate.tokens import Assumptions as Assumptions
