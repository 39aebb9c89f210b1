"""Arms: a declared set of recipes x seeds, trained in parallel, resumable, with one page that shows every arm
side by side.

    declare (the file) -> jobs (stages that arms share are trained once) -> pool (one process a job) ->
    results -> claims -> page
"""
