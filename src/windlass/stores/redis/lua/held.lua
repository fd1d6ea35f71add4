-- needs: workers
-- given: worker. Answers the tokens that it holds.

return pack(tokens(held_by(given[1])))
