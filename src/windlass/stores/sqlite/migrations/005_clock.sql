-- How long a lead was given for, so that one which a clock that was set back has left far in the future can be told
-- from one that was asked for so long; 0: by a version that did not say.
ALTER TABLE windlass_leads ADD COLUMN ttl INTEGER NOT NULL DEFAULT 0;
