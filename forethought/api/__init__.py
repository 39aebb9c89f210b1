"""`import forethought as ft`: what the command line does, from Python. Each function here is a verb there,
with the same meaning, the same errors and the same run directories (docs/python.md)."""

from forethought.api.callbacks import Callback as Callback
from forethought.api.callbacks import CallbackError as CallbackError
from forethought.api.callbacks import Moment as Moment
from forethought.api.looking import compare as compare
from forethought.api.looking import evaluate as evaluate
from forethought.api.looking import export as export
from forethought.api.looking import sample as sample
from forethought.api.looking import swap as swap
from forethought.api.opened import Checkpoint as Checkpoint
from forethought.api.opened import Run as Run
from forethought.api.opened import open as open
from forethought.api.training import train as train
