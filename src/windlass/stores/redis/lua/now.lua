-- needs: record
return pack(now)
