-- How a job is read: as core/job.py has it.

local function as_job(job)
    return {
        job[ID], job[TASK], job[VERSION], job[TENANT], job[QUEUE], job[STATE], job[REASON] or NIL, job[PRIORITY], job[CREATED],
        comes_due(job), job[EXPIRES] or NIL, job[PAYLOAD], job[META], job[ATTEMPT], job[CRASHES], job[LOSSES], job[SUSPECT],
        job[FENCE], job[WORKER] or NIL, job[STARTED] or NIL, job[FINISHED] or NIL, job[CANCELLING], job[RESULT] or NIL,
        job[RESULT_GONE], job[ERROR] or NIL, call('HGET', PROGRESS, job[ID]) or NIL,
    }
end
