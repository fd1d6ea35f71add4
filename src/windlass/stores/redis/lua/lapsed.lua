-- needs: workers
-- given: reaper. Answers the workers that it may take over.

return pack(lapsed(given[1]))
