CREATE TABLE items (id INTEGER PRIMARY KEY, grp INTEGER, value INTEGER, name TEXT);
CREATE INDEX by_group ON items (grp, value);
BEGIN;
WITH RECURSIVE n (i, v) AS
    (SELECT 1, :seed UNION ALL SELECT i + 1, (v * 1103515245 + 12345) % 2147483648 FROM n WHERE i < 6000)
    INSERT INTO items SELECT i, v / 65536 % 97, v, printf('item-%08x-%d', v, i) FROM n;
COMMIT;
SELECT count(*), sum(value), min(name), max(name) FROM items;
BEGIN;
UPDATE items SET value = value + id * 3, name = name || '-' || grp WHERE grp % 5 = 2;
DELETE FROM items WHERE value % 11 = 4;
INSERT INTO items (grp, value, name) SELECT grp + 100, value / 2, upper(name) FROM items WHERE grp < 20;
COMMIT;
CREATE INDEX by_name ON items (name);
SELECT grp, count(*), sum(value), min(name) FROM items GROUP BY grp ORDER BY grp;
SELECT sum(length(a.name) * b.grp) FROM items a JOIN items b ON a.id = b.id + 1 WHERE a.value > b.value;
BEGIN;
DELETE FROM items WHERE id % 3 = 0;
ROLLBACK;
SELECT count(*), sum(value * grp % 1000003), sum(instr(name, '7')) FROM items;
DELETE FROM items WHERE grp >= 100;
VACUUM;
SELECT count(*), sum(value) FROM items WHERE name > 'item-4';
PRAGMA integrity_check;
