"""Maximum likelihood against maximum a posteriori: the job, and what it reports."""

from probsoftmax.compare.job import Comparison as Comparison
from probsoftmax.compare.job import Result as Result
from probsoftmax.compare.job import Scores as Scores
from probsoftmax.compare.job import Task as Task
from probsoftmax.compare.job import compare as compare
from probsoftmax.compare.job import load_task as load_task
from probsoftmax.compare.report import figures as figures
from probsoftmax.compare.report import heading as heading
from probsoftmax.compare.report import notes as notes
from probsoftmax.compare.report import numbers as numbers
from probsoftmax.compare.report import table as table
