-- needs: workers
-- Answers every worker that was not taken over: id, report, started, beat, lease.

return pack(known_workers())
