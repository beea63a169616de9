// Whether this app counts as the bundle says it must. Runs on a phone or an emulator; README.md says how.
package shelfcount

import android.graphics.ImageDecoder
import android.graphics.RectF
import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import kotlin.math.abs
import kotlin.math.max
import kotlin.math.min
import org.json.JSONArray
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Test
import org.junit.runner.RunWith

@RunWith(AndroidJUnit4::class)
class GoldenTest {

    @Test
    fun countsAsTheBundleSays() {
        val instrumentation = InstrumentationRegistry.getInstrumentation()
        val assets = instrumentation.context.assets
        val golden = JSONObject(assets.open("golden/golden.json").bufferedReader().use { it.readText() })
        val agreement = Agreement(golden)
        ShelfCounter.fromAssets(instrumentation.targetContext, "shelf").use { counter ->
            for (photo in golden.getJSONArray("photos").objects()) {
                val file = photo.getString("file")
                val bitmap = readPhoto(ImageDecoder.createSource(assets, "golden/$file"))
                assertEquals(file, photo.getInt("width") to photo.getInt("height"), bitmap.width to bitmap.height)
                val expected = photo.getJSONArray("detections").objects().map(::product)
                val seen = counter.count(bitmap).products
                assertEquals("$file, expected and not seen", emptyList<Product>(), agreement.missing(expected, seen))
                assertEquals("$file, seen and not expected", emptyList<Product>(), agreement.missing(seen, expected))
            }
        }
    }
}

/** When two detections are the same, by the tolerance that the bundle states. */
private class Agreement(golden: JSONObject) {
    private val leastIou = golden.getJSONObject("tolerance").getDouble("iou").toFloat()
    private val scoreGap = golden.getJSONObject("tolerance").getDouble("score").toFloat()

    // What scores less than this may be above the threshold here and below it there.
    private val certain = golden.getDouble("score_threshold").toFloat() + scoreGap

    /** Those of [wanted] that must be among [others] and are not. */
    fun missing(wanted: List<Product>, others: List<Product>): List<Product> =
        wanted.filter { product -> product.score >= certain && others.none { same(product, it) } }

    private fun same(a: Product, b: Product): Boolean =
        a.name == b.name && abs(a.score - b.score) <= scoreGap && iou(a.box, b.box) >= leastIou
}

private fun iou(a: RectF, b: RectF): Float {
    val width = max(0f, min(a.right, b.right) - max(a.left, b.left))
    val height = max(0f, min(a.bottom, b.bottom) - max(a.top, b.top))
    val common = width * height
    return common / (a.width() * a.height() + b.width() * b.height() - common)
}

private fun product(detection: JSONObject): Product {
    val (x, y, width, height) = detection.getJSONArray("box").let { box -> List(4) { box.getDouble(it).toFloat() } }
    return Product(detection.getString("class"), detection.getDouble("score").toFloat(), RectF(x, y, x + width, y + height))
}

private fun JSONArray.objects(): List<JSONObject> = List(length()) { getJSONObject(it) }
