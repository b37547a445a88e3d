
// Pictures as buffers: rows follow one another.

@group(0) @binding(1) var<storage, read> picture: array<u32>;
@group(0) @binding(2) var<storage, read> cursor: array<u32>;

fn picture_texel(at: vec2<i32>) -> u32 {
    return picture[u32(at.y) * params.row + u32(at.x)];
}

fn cursor_texel(at: vec2<i32>) -> u32 {
    return cursor[u32(at.y * params.cursor.z + at.x)];
}
