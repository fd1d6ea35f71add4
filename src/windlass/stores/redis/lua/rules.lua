-- needs: flow
-- Answers every queue about which anybody has said anything, with its rules.

return pack(all_rules())
