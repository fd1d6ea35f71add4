-- needs: record
-- How a job is read: as core/job.py has it.

local function as_jobs(found)
    flush()
    local ids, answers = {}, {}
    for n, job in ipairs(found) do
        ids[n] = job and job[ID] or ''
    end
    local kept, said = all_in(K.bodies, ids), all_in(K.progress, ids)
    for n, job in ipairs(found) do
        answers[n] = job and array(26) .. pack(job[ID], job[TASK], job[VERSION], job[TENANT], job[QUEUE], job[STATE],
                                               job[REASON] or NIL, job[PRIORITY], job[CREATED], comes_due(job),
                                               job[EXPIRES] or NIL)
            .. kept[job[ID]] .. pack(job[ATTEMPT], job[CRASHES], job[LOSSES], job[SUSPECT], job[FENCE],
                                     job[WORKER] or NIL, job[STARTED] or NIL, job[FINISHED] or NIL, job[CANCELLING],
                                     job[RESULT] or NIL, job[RESULT_GONE], job[ERROR] or NIL, said[job[ID]] or NIL)
            or pack(NIL)
    end
    return answers
end
