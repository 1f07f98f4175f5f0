//! Maintained columns as the catalogs have them now.

use super::definition::Definition;
use super::proof::{self, Doubt};
use super::query::{operator, qualified, quoted};
use crate::error::{Report, pipeline as error};
use crate::server::{catalog, expression, security, spi};
use pgrx::pg_sys;
use std::collections::BTreeMap;

/// Objects of the extension, which may lie in any schema.
pub struct Extension {
    pub schema: String,
    /// The function of our triggers.
    pub enqueue: pg_sys::Oid,
    /// Type `imgvec`, and its array.
    pub vector: pg_sys::Oid,
    pub vectors: pg_sys::Oid,
}

impl Extension {
    /// Looks them up, for a function of the extension.
    pub fn find() -> Self {
        Self::try_find().expect("the extension that is called exists")
    }

    /// Looks them up; none if the database has not got the extension, or an older version of it.
    pub fn try_find() -> Option<Self> {
        let sql = "SELECT n.nspname, p.oid, t.oid, t.typarray FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
            JOIN pg_proc p ON p.pronamespace = n.oid AND p.proname = 'imgvec_enqueue'
            JOIN pg_type t ON t.typnamespace = n.oid AND t.typname = 'imgvec' WHERE e.extname = 'imgvec'";
        spi::prepared_first(sql, &[], |row| Self {
            schema: row.string(1),
            enqueue: row.oid(2),
            vector: row.oid(3),
            vectors: row.oid(4),
        })
    }
}

/// A table.
#[derive(Clone)]
pub struct Table {
    pub oid: pg_sys::Oid,
    pub owner: pg_sys::Oid,
    pub owner_name: String,
    pub schema: String,
    pub name: String,
    pub kind: u8,
    pub is_partition: bool,
    pub persistence: u8,
    /// Names of its columns by number.
    pub columns: BTreeMap<i16, String>,
}

impl Table {
    /// Looks a relation up.
    pub fn find(oid: pg_sys::Oid) -> Option<Self> {
        let sql = "SELECT c.relowner, r.rolname, n.nspname, c.relname, c.relkind, c.relispartition, c.relpersistence
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_roles r ON r.oid = c.relowner
            WHERE c.oid = $1";
        let mut table = spi::prepared_first(sql, &[spi::oid(oid)], |row| Self {
            oid,
            owner: row.oid(1),
            owner_name: row.string(2),
            schema: row.string(3),
            name: row.string(4),
            kind: row.string(5).bytes().next().unwrap_or(0),
            is_partition: row.is_true(6),
            persistence: row.string(7).bytes().next().unwrap_or(0),
            columns: BTreeMap::new(),
        })?;
        let sql = "SELECT attnum, attname FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped";
        let columns = spi::prepared_rows(sql, &[spi::oid(oid)], |row| {
            (i16::try_from(row.integer(1)).expect("a column's number"), row.string(2))
        });
        table.columns = columns.into_iter().collect();
        Some(table)
    }

    pub fn is_partitioned(&self) -> bool {
        self.kind == b'p'
    }

    /// As SQL and messages name it.
    pub fn qualified(&self) -> String {
        qualified(&self.schema, &self.name)
    }

    /// As FROM names it: of a plain table, not the rows of tables that inherit from it.
    pub fn from(&self) -> String {
        if self.is_partitioned() { self.qualified() } else { format!("ONLY {}", self.qualified()) }
    }

    pub fn number(&self, name: &str) -> Option<i16> {
        self.columns.iter().find(|column| column.1 == name).map(|column| *column.0)
    }
}

/// One column of the key, with the operators of the index that it is unique by.
pub struct KeyColumn {
    pub number: i16,
    pub name: String,
    /// With its length, as DDL writes it.
    pub type_name: String,
    pub equal: String,
    pub greater: String,
    pub less: String,
    pub class: String,
    pub collation: Option<String>,
}

/// What distinguishes rows of a table.
pub struct Key(pub Vec<KeyColumn>);

impl Key {
    /// The best key of a table: its primary key, or the shortest other one. With `wanted`, one of just these columns.
    pub fn find(table: pg_sys::Oid, wanted: Option<&[i16]>) -> Option<Self> {
        let wanted = wanted.map(|numbers| {
            let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            format!("{{{}}}", numbers.join(","))
        });
        let sql = "SELECT i.indexrelid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
             CROSS JOIN LATERAL (SELECT (i.indkey::int2[])[0:i.indnkeyatts - 1]) AS k(numbers)
             WHERE i.indrelid = $1 AND m.amname = 'btree' AND i.indisunique AND i.indisvalid AND i.indimmediate
             AND i.indpred IS NULL AND i.indexprs IS NULL
             AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum = ANY(k.numbers) AND NOT a.attnotnull)
             AND coalesce(k.numbers @> $2::int2[] AND k.numbers <@ $2::int2[], true)
             ORDER BY i.indisprimary DESC, i.indisreplident DESC, i.indnkeyatts, i.indexrelid LIMIT 1";
        let wanted = wanted.as_deref().map_or((pg_sys::TEXTOID, None), spi::text);
        let index = spi::prepared_first(sql, &[spi::oid(table), wanted], |row| row.oid(1))?;
        let sql = "SELECT a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), ns.nspname, o.opcname,
                ncol.nspname, col.collname, eqn.nspname, eq.oprname, gtn.nspname, gt.oprname, ltn.nspname, lt.oprname
            FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[]) WITH ORDINALITY AS k(number, class, place)
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
            JOIN pg_opclass o ON o.oid = k.class JOIN pg_namespace ns ON ns.oid = o.opcnamespace
            LEFT JOIN pg_collation col ON col.oid = a.attcollation LEFT JOIN pg_namespace ncol ON ncol.oid = col.collnamespace
            JOIN pg_amop ae ON ae.amopfamily = o.opcfamily AND ae.amopstrategy = 3
                AND ae.amoplefttype = o.opcintype AND ae.amoprighttype = o.opcintype
            JOIN pg_operator eq ON eq.oid = ae.amopopr JOIN pg_namespace eqn ON eqn.oid = eq.oprnamespace
            JOIN pg_amop ag ON ag.amopfamily = o.opcfamily AND ag.amopstrategy = 5
                AND ag.amoplefttype = o.opcintype AND ag.amoprighttype = o.opcintype
            JOIN pg_operator gt ON gt.oid = ag.amopopr JOIN pg_namespace gtn ON gtn.oid = gt.oprnamespace
            JOIN pg_amop al ON al.amopfamily = o.opcfamily AND al.amopstrategy = 1
                AND al.amoplefttype = o.opcintype AND al.amoprighttype = o.opcintype
            JOIN pg_operator lt ON lt.oid = al.amopopr JOIN pg_namespace ltn ON ltn.oid = lt.oprnamespace
            WHERE i.indexrelid = $1 AND k.place <= i.indnkeyatts ORDER BY k.place";
        let columns = spi::prepared_rows(sql, &[spi::oid(index)], |row| KeyColumn {
            number: i16::try_from(row.integer(1)).expect("a column's number"),
            name: row.string(2),
            type_name: row.string(3),
            class: qualified(&row.string(4), &row.string(5)),
            collation: row.text(7).map(|name| qualified(&row.string(6), &name)),
            equal: operator(&row.string(8), &row.string(9)),
            greater: operator(&row.string(10), &row.string(11)),
            less: operator(&row.string(12), &row.string(13)),
        });
        Some(Self(columns))
    }

    /// Their names in the queue and in the log: `k1, k2`, each with `prefix`.
    pub fn stored(&self, prefix: &str) -> String {
        let names: Vec<String> = (1..=self.0.len()).map(|place| format!("{prefix}k{place}")).collect();
        names.join(", ")
    }

    /// Their names in the table, each with `prefix`.
    pub fn named(&self, prefix: &str) -> String {
        let names: Vec<String> =
            self.0.iter().map(|column| format!("{prefix}{}", quoted(&column.name))).collect();
        names.join(", ")
    }

    /// That a row of the table, `p`, is the one that `other` has stored.
    pub fn matches(&self, other: &str) -> String {
        let equal = |(place, column): (usize, &KeyColumn)| {
            format!("p.{} {} {other}.k{}", quoted(&column.name), column.equal, place + 1)
        };
        let all: Vec<String> = self.0.iter().enumerate().map(equal).collect();
        all.join(" AND ")
    }

    /// That two stored keys are equal.
    pub fn equal(&self, one: &str, other: &str) -> String {
        let equal = |(place, column): (usize, &KeyColumn)| {
            format!("{one}.k{0} {1} {other}.k{0}", place + 1, column.equal)
        };
        let all: Vec<String> = self.0.iter().enumerate().map(equal).collect();
        all.join(" AND ")
    }

    /// That a row of the table, `p`, comes after the key that `place`, a query of one row, has stored. In the form that an
    /// index of several columns is searched by where all operators are those of the server.
    pub fn behind(&self, place: &str) -> String {
        let stored = |number: usize| format!("(SELECT k{number} FROM {place})");
        if self.0.len() == 1 || self.0.iter().all(|column| column.greater == operator("pg_catalog", ">")) {
            let all: Vec<String> = (1..=self.0.len()).map(stored).collect();
            return format!("ROW({}) {} ROW({})", self.named("p."), self.0[0].greater, all.join(", "));
        }
        let mut equal = String::new();
        let mut any = Vec::new();
        for (place, column) in self.0.iter().enumerate() {
            let (name, stored) = (quoted(&column.name), stored(place + 1));
            any.push(format!("({equal}p.{name} {} {stored})", column.greater));
            equal.push_str(&format!("p.{name} {} {stored} AND ", column.equal));
        }
        format!("({})", any.join(" OR "))
    }

    /// ORDER BY in the key's order, for columns with `prefix`; downwards with `greater`.
    pub fn order(&self, prefix: &str, is_descending: bool) -> String {
        let by = |column: &KeyColumn| {
            let operator = if is_descending { &column.greater } else { &column.less };
            format!("{prefix}{} USING {operator}", quoted(&column.name))
        };
        let all: Vec<String> = self.0.iter().map(by).collect();
        all.join(", ")
    }
}

/// A column that keeps its embeddings.
#[derive(Clone)]
pub struct Column {
    pub table: Table,
    /// With the names that queue and log have now.
    pub definition: Definition,
    /// Whether the stored declaration has other names of these two.
    pub is_moved: bool,
    /// The declaration as the triggers have it.
    pub argument: String,
}

impl Column {
    /// One that was just declared.
    pub fn new(table: Table, definition: Definition) -> Self {
        let argument = definition.to_json();
        Self { table, definition, is_moved: false, argument }
    }

    /// All of the database, or of one table, in order of their tables and names, whose declarations count.
    pub fn all(extension: &Extension, relation: Option<pg_sys::Oid>) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for (column, doubt) in Self::declared(extension, relation) {
            let mut of_table = all.iter().rev().take_while(|other| other.table.oid == column.table.oid);
            if doubt.is_none() && !of_table.any(|other| other.argument == column.argument) {
                all.push(column);
            }
        }
        all
    }

    /// What triggers declare, each with the reason why it does not count, if there is one.
    pub fn declared(extension: &Extension, relation: Option<pg_sys::Oid>) -> Vec<(Self, Option<Doubt>)> {
        let found = Self::found(extension, relation, |_| true).into_iter();
        found
            .map(|(column, trigger)| {
                let doubt = proof::doubt(extension, &column, trigger);
                (column, doubt)
            })
            .collect()
    }

    /// What triggers declare, whether it counts or not, with their oids. Whatever somebody has written there, it keeps nobody
    /// from reading the others: arguments that are none of ours are passed by.
    pub fn found(
        extension: &Extension,
        relation: Option<pg_sys::Oid>,
        mut is_wanted: impl FnMut(&Definition) -> bool,
    ) -> Vec<(Self, pg_sys::Oid)> {
        // Insert is 4 in tgtype. A partition's trigger has a parent. Between two arguments is a zero byte, which is no text.
        let sql =
            "SELECT tgrelid, oid, convert_from(substring(tgargs FOR length(tgargs) - 1), getdatabaseencoding())
            FROM pg_trigger WHERE tgfoid = $1 AND tgtype & 4 <> 0 AND tgparentid = 0 AND tgnargs = 1 AND length(tgargs) > 1
            AND (tgrelid = $2 OR $2 = 0) ORDER BY tgrelid, tgname";
        let relation = relation.unwrap_or(pg_sys::InvalidOid);
        let found = spi::prepared_rows(sql, &[spi::oid(extension.enqueue), spi::oid(relation)], |row| {
            (row.oid(1), row.oid(2), row.string(3))
        });
        let read = |(table, trigger, argument): (pg_sys::Oid, pg_sys::Oid, String)| {
            if !Definition::from_json(&argument).is_some_and(|definition| is_wanted(&definition)) {
                return None;
            }
            let table = Table::find(table)?;
            // Views have triggers too, and other sessions' temporary tables cannot be read.
            let is_table = matches!(table.kind, b'r' | b'p') && table.persistence != b't';
            let column = is_table.then(|| Self::read(table, &argument)).flatten()?;
            Some((column, trigger))
        };
        found.into_iter().filter_map(read).collect()
    }

    /// The column that a trigger's argument declares, whether it counts or not.
    pub fn read(table: Table, argument: &str) -> Option<Self> {
        let mut definition = Definition::from_json(argument)?;
        let mut is_moved = false;
        if definition.relation == table.oid.to_u32() {
            let (queue, log) = definition.tables;
            is_moved = queue == 0 || log == 0;
            for (name, oid) in [(&mut definition.queue, queue), (&mut definition.log, log)] {
                if let Some(now) = catalog::qualified_name(pg_sys::Oid::from(oid)) {
                    is_moved |= *name != now;
                    *name = now;
                }
            }
        }
        Some(Self { table, definition, is_moved, argument: argument.to_owned() })
    }

    /// Whether the stored declaration has other names or numbers than the catalogs have now.
    pub fn is_stale(&self) -> bool {
        let is_renamed = |(declared, number): (&String, &i16)| {
            self.table.columns.get(number).is_some_and(|name| name != declared)
        };
        self.is_copy() || self.is_moved || self.definition.columns.iter().any(is_renamed)
    }

    /// Whether the table is a copy of the one that was declared.
    fn is_copy(&self) -> bool {
        self.definition.relation != self.table.oid.to_u32()
    }

    /// The declaration with the names and numbers of now; none if something that it names is not there.
    ///
    /// # Errors
    /// If the source is no expression over the table any more.
    pub fn refreshed(&self) -> Result<Option<Definition>, Report> {
        let Self { table, definition, .. } = self;
        let now = |declared: &String| self.name(declared).map(str::to_owned);
        let all = |names: &[String]| names.iter().map(now).collect::<Option<Vec<String>>>();
        let oid =
            |(schema, name): &(String, String)| catalog::relation(schema, name).map(pg_sys::Oid::to_u32);
        let found = (|| {
            Some((
                (all(&definition.key)?, all(&definition.watch)?, now(&definition.target)?),
                (oid(&definition.queue)?, oid(&definition.log)?),
            ))
        })();
        let Some(((key, watch, target), tables)) = found else { return Ok(None) };
        let source = if self.is_copy() {
            definition.source.clone()
        } else {
            // What the source calls its columns; the others have names that it cannot have.
            let name = |(number, _): (&i16, &String)| {
                let declared = definition.columns.iter().find(|declared| declared.1 == number);
                declared.map_or_else(|| format!("imgvec {number}"), |declared| declared.0.clone())
            };
            let names: Vec<String> = table.columns.iter().map(name).collect();
            // What is stored may be anything, and reading its literals runs code: the owner's, as the owner.
            security::as_owner(table.owner, || {
                expression::analyze(table.oid, &table.from(), &names, &definition.source)
            })?
            .text
        };
        let succeeds = definition.succeeds.as_ref().and_then(now);
        let named = key.iter().chain(&watch).chain([&target]).chain(&succeeds);
        let columns =
            named.filter_map(|name| Some((name.clone(), table.number(name)?))).collect::<BTreeMap<_, _>>();
        let relation = table.oid.to_u32();
        let rest = definition.clone();
        Ok(Some(Definition { key, watch, target, source, succeeds, columns, relation, tables, ..rest }))
    }

    /// What a column that the declaration names is called now.
    pub fn name(&self, declared: &str) -> Option<&str> {
        if self.definition.relation == self.table.oid.to_u32() {
            let number = self.definition.columns.get(declared)?;
            return self.table.columns.get(number).map(String::as_str);
        }
        let number = self.table.number(declared)?;
        self.table.columns.get(&number).map(String::as_str)
    }

    /// The target's name now.
    pub fn target(&self) -> &str {
        self.name(&self.definition.target).unwrap_or(&self.definition.target)
    }

    /// The column whose place this one is to take, by its name now.
    pub fn predecessor(&self) -> Option<&str> {
        self.name(self.definition.succeeds.as_deref()?)
    }

    pub fn queue(&self) -> String {
        qualified(&self.definition.queue.0, &self.definition.queue.1)
    }

    pub fn log(&self) -> String {
        qualified(&self.definition.log.0, &self.definition.log.1)
    }

    /// As messages name it.
    pub fn title(&self) -> String {
        format!("{}.{}", self.table.qualified(), quoted(self.target()))
    }

    /// The key.
    ///
    /// # Errors
    /// If its index is gone.
    pub fn key(&self) -> Result<Key, Report> {
        let gone = || error::key_is_gone(&self.table.qualified());
        let numbers: Vec<i16> = self
            .definition
            .key
            .iter()
            .map(|name| self.table.number(self.name(name)?))
            .collect::<Option<_>>()
            .ok_or_else(gone)?;
        let Key(mut columns) = Key::find(self.table.oid, Some(&numbers)).ok_or_else(gone)?;
        // The order in which the queue stores them.
        columns.sort_by_key(|column| numbers.iter().position(|number| *number == column.number));
        Ok(Key(columns))
    }

    /// The source as SQL, over the table's row as `p`.
    pub fn source(&self) -> String {
        let is_renamed = |(declared, number): (&String, &i16)| {
            self.table.columns.get(number).is_some_and(|name| name != declared)
        };
        let source = format!("({}\n)", self.definition.source);
        if self.definition.relation != self.table.oid.to_u32()
            || !self.definition.columns.iter().any(is_renamed)
        {
            return source;
        }
        // Columns under the names that they had.
        let names: Vec<String> = self
            .definition
            .columns
            .iter()
            .filter_map(|(declared, number)| {
                self.table
                    .columns
                    .get(number)
                    .map(|name| format!("p.{} AS {}", quoted(name), quoted(declared)))
            })
            .collect();
        format!("(SELECT {source} FROM (SELECT {}) AS p)", names.join(", "))
    }
}
