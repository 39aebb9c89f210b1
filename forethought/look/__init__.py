"""A run or a bare model, looked at: factored evaluation, repeated samples, turns of every role to
read, planners and actors exchanged."""

from forethought.look.measure import evaluate as evaluate
from forethought.look.samples import sample as sample
from forethought.look.samples import watch as watch
from forethought.look.source import Source as Source
from forethought.look.source import find as find
from forethought.look.source import find_all as find_all
from forethought.look.source import steps_of as steps_of
from forethought.look.swap import swap as swap
