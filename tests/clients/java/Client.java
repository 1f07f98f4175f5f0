// JDBC with PostgreSQL's driver. Arguments: the type of the column, imgvec or pgvector's vector; the server's URL.

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.nio.ByteBuffer;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.postgresql.PGConnection;
import org.postgresql.util.PGobject;

public class Client {
    static final int DIM = 256, ROWS = 2000;
    static final Random RANDOM = new Random(7);

    static PGobject bound(String type, float[] elements) throws SQLException {
        PGobject vector = new PGobject();
        vector.setType(type); // "imgvec", or "vector" for a column of pgvector
        vector.setValue(Arrays.toString(elements));
        return vector;
    }

    static float[] read(ResultSet row, int column) throws SQLException {
        String text = row.getString(column);
        if (text == null) return null;
        String[] words = text.substring(1, text.length() - 1).split(",");
        float[] elements = new float[words.length];
        for (int i = 0; i < words.length; i++) elements[i] = Float.parseFloat(words[i]);
        return elements;
    }

    static float[] randomVector() {
        float[] vector = new float[DIM];
        for (int i = 0; i < DIM; i++) vector[i] = (float) RANDOM.nextGaussian();
        return vector;
    }

    static double dot(float[] a, float[] b) {
        double sum = 0;
        for (int i = 0; i < a.length; i++) sum += (double) a[i] * b[i];
        return sum;
    }

    static void require(boolean holds, Object what) {
        if (!holds) throw new AssertionError(what);
    }

    static List<Long> ids(ResultSet rows) throws SQLException {
        List<Long> ids = new ArrayList<>();
        while (rows.next()) ids.add(rows.getLong(1));
        return ids;
    }

    static void requireIndex(ResultSet plan) throws SQLException {
        StringBuilder text = new StringBuilder();
        while (plan.next()) text.append(plan.getString(1)).append('\n');
        require(text.toString().contains("Index Scan using items_embedding on items"), text);
    }

    static void requireFailure(Connection conn, String statement, String state) throws SQLException {
        try {
            conn.createStatement().execute(statement);
        } catch (SQLException error) {
            require(state.equals(error.getSQLState()), statement + ": " + error.getSQLState());
            return;
        }
        throw new AssertionError(statement + " succeeded");
    }

    public static void main(String[] arguments) throws Exception {
        String type = arguments[0];
        float[][] vectors = new float[ROWS][];
        for (int row = 0; row < ROWS; row++) vectors[row] = randomVector();
        float[] query = randomVector();
        List<Long> nearest = IntStream.range(0, ROWS).boxed()
                .sorted((a, b) -> Double.compare(
                        dot(vectors[b], query) / Math.sqrt(dot(vectors[b], vectors[b])),
                        dot(vectors[a], query) / Math.sqrt(dot(vectors[a], vectors[a]))))
                .limit(5).map(row -> row + 1L).collect(Collectors.toList());

        // A statement is prepared in the server from its second execution on.
        try (Connection conn = DriverManager.getConnection(arguments[1] + "&prepareThreshold=2")) {
            conn.createStatement().execute(
                    "CREATE TABLE items (id bigserial PRIMARY KEY, embedding " + type + "(" + DIM + "))");

            // In: half by COPY, half by a batch of bound values.
            StringBuilder lines = new StringBuilder();
            for (int row = 0; row < ROWS / 2; row++) {
                lines.append(row + 1).append('\t').append(Arrays.toString(vectors[row])).append('\n');
            }
            var copy = conn.unwrap(PGConnection.class).getCopyAPI();
            require(copy.copyIn("COPY items FROM STDIN", new StringReader(lines.toString())) == ROWS / 2, "copy");
            try (PreparedStatement insert = conn.prepareStatement("INSERT INTO items VALUES (?, ?)")) {
                for (int row = ROWS / 2; row < ROWS; row++) {
                    insert.setLong(1, row + 1);
                    insert.setObject(2, bound(type, vectors[row]));
                    insert.addBatch();
                }
                insert.executeBatch();
            }
            conn.createStatement().execute("CREATE INDEX items_embedding ON items USING ann (embedding " + type
                    + "_cosine_ops); ANALYZE items; SELECT setval('items_id_seq', 10000)");

            // Out again exactly, in text and by COPY BINARY, there and back.
            try (ResultSet rows = conn.createStatement().executeQuery("SELECT embedding FROM items ORDER BY id")) {
                for (float[] vector : vectors) require(rows.next() && Arrays.equals(read(rows, 1), vector), "stored");
            }
            ByteArrayOutputStream copied = new ByteArrayOutputStream();
            copy.copyOut("COPY items TO STDOUT (FORMAT BINARY)", copied);
            ByteBuffer first = ByteBuffer.wrap(copied.toByteArray(), 19 + 2 + 4 + 8 + 4, 4 + 4 * DIM);
            require(first.getShort() == DIM && first.getShort() == 0, "wire format");
            for (float element : vectors[0]) require(first.getFloat() == element, "wire format");
            conn.createStatement().execute("CREATE TABLE copied (LIKE items)");
            copy.copyIn("COPY copied FROM STDIN (FORMAT BINARY)", new ByteArrayInputStream(copied.toByteArray()));
            require(ids(conn.createStatement().executeQuery("SELECT count(*) FROM items JOIN copied USING (id)"
                    + " WHERE items.embedding = copied.embedding")).equals(List.of((long) ROWS)), "copied");
            float[] awkward = {0.1f, -0.0f, Float.MIN_VALUE, -Float.MAX_VALUE, 16777216f, 1 / 3f};
            try (PreparedStatement select = conn.prepareStatement("SELECT ?::" + type + ", ?::" + type)) {
                select.setObject(1, bound(type, awkward));
                select.setObject(2, null);
                ResultSet row = select.executeQuery();
                require(row.next() && Arrays.equals(read(row, 1), awkward) && read(row, 2) == null, "awkward");
            }

            // A bound vector finds its neighbors by the index, with a generic plan in the end.
            String text = "SELECT id FROM items ORDER BY embedding <=> ? LIMIT 5";
            try (PreparedStatement search = conn.prepareStatement(text)) {
                search.setObject(1, bound(type, query));
                for (int i = 0; i < 12; i++) require(ids(search.executeQuery()).equals(nearest), "nearest");
                ResultSet prepared = conn.createStatement().executeQuery(
                        "SELECT name FROM pg_prepared_statements WHERE statement ~ '^SELECT id .*<=>' AND generic_plans > 0");
                require(prepared.next(), "no generic plan");
                String name = prepared.getString(1);
                conn.createStatement().execute("SET plan_cache_mode = force_generic_plan");
                requireIndex(conn.createStatement().executeQuery(
                        "EXPLAIN EXECUTE \"" + name + "\"('" + Arrays.toString(query) + "')"));
                conn.createStatement().execute("RESET plan_cache_mode");
            }
            try (PreparedStatement explain = conn.prepareStatement("EXPLAIN " + text)) {
                explain.setObject(1, bound(type, query));
                requireIndex(explain.executeQuery());
            }

            // The server's embeddings.
            float[] dog;
            try (PreparedStatement embed = conn.prepareStatement("SELECT embed_text(?)")) {
                embed.setString(1, "a dog");
                ResultSet row = embed.executeQuery();
                require(row.next(), "embed_text");
                dog = read(row, 1);
            }
            try (PreparedStatement insert = conn.prepareStatement(
                    "INSERT INTO items (embedding) VALUES (?), (embed_text(?)), (NULL)")) {
                insert.setObject(1, bound(type, dog));
                insert.setString(2, "a cat");
                insert.executeUpdate();
            }
            List<Long> both = List.of(10001L, 10002L);
            try (PreparedStatement search = conn.prepareStatement(
                    "SELECT id FROM items WHERE id > 10000 ORDER BY embedding <=> ? LIMIT 2")) {
                search.setObject(1, bound(type, dog));
                require(ids(search.executeQuery()).equals(both), "bound embedding");
            }
            try (PreparedStatement search = conn.prepareStatement(
                    "SELECT id FROM items WHERE id > 10000 ORDER BY embedding <=> embed_text(?) LIMIT 2")) {
                search.setString(1, "a dog");
                require(ids(search.executeQuery()).equals(both), "embed_text");
            }

            requireFailure(conn, "INSERT INTO items (embedding) VALUES ('[1,2,3]')", "22000");
            requireFailure(conn, "SELECT '[1,'::" + type, "22P02");
            requireFailure(conn, "SELECT embed_text('a dog', 'no-such-model')", "42704");
        }
    }
}
