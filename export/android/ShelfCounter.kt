// Counts the products on a shelf photo with a shelfcount bundle. Copy this file into an app; README.md says the rest.
package shelfcount

import android.content.Context
import android.graphics.Bitmap
import android.graphics.ImageDecoder
import android.graphics.RectF
import com.google.mediapipe.framework.image.BitmapImageBuilder
import com.google.mediapipe.tasks.components.containers.Detection
import com.google.mediapipe.tasks.core.BaseOptions
import com.google.mediapipe.tasks.vision.objectdetector.ObjectDetector
import java.io.File
import java.io.RandomAccessFile
import java.nio.channels.FileChannel
import org.json.JSONObject

/** One product; its box is in pixels of the photo. */
data class Product(val name: String, val score: Float, val box: RectF)

/** What a photo shows. */
data class Counts(val products: List<Product>) {
    /** Products of each class that is there. */
    val perClass: Map<String, Int> get() = products.groupingBy { it.name }.eachCount()
}

/** A photo from a file, an asset or a content URI, upright: ImageDecoder turns it as its EXIF orientation says. */
fun readPhoto(source: ImageDecoder.Source): Bitmap =
    ImageDecoder.decodeBitmap(source) { decoder, _, _ ->
        // MediaPipe reads the pixels, which it can't where ImageDecoder puts them by default, in graphics memory.
        decoder.allocator = ImageDecoder.ALLOCATOR_SOFTWARE
    }

/** A bundle, ready to count. */
class ShelfCounter private constructor(private val detector: ObjectDetector) : AutoCloseable {

    /** Counts an upright ARGB_8888 [photo], such as [readPhoto] gives. Takes its time: not for the main thread. */
    fun count(photo: Bitmap): Counts {
        // Not closed: that would recycle the bitmap, which is the caller's.
        val image = BitmapImageBuilder(photo).build()
        return Counts(detector.detect(image).detections().map(::product))
    }

    override fun close() = detector.close()

    companion object {
        // Of model.json; a bundle of another format needs another version of this file.
        private const val FORMAT = 1

        /** The bundle that lies in the app's assets as [folder]. */
        fun fromAssets(context: Context, folder: String): ShelfCounter {
            val model = BaseOptions.builder().setModelAssetPath("$folder/model.tflite").build()
            val json = context.assets.open("$folder/model.json").bufferedReader().use { it.readText() }
            return open(context, model, JSONObject(json))
        }

        /** The bundle that lies in [folder], downloaded for example. */
        fun fromFolder(context: Context, folder: File): ShelfCounter {
            val bytes = RandomAccessFile(File(folder, "model.tflite"), "r").use {
                it.channel.map(FileChannel.MapMode.READ_ONLY, 0, it.length())
            }
            val model = BaseOptions.builder().setModelAssetBuffer(bytes).build()
            return open(context, model, JSONObject(File(folder, "model.json").readText()))
        }

        private fun open(context: Context, model: BaseOptions, json: JSONObject): ShelfCounter {
            val format = json.getInt("format")
            require(format == FORMAT) { "model.json must have format $FORMAT, got $format" }
            val spec = json.getJSONObject("spec")
            val options = ObjectDetector.ObjectDetectorOptions.builder()
                .setBaseOptions(model)
                .setScoreThreshold(spec.getDouble("score_threshold").toFloat())
                .setMaxResults(spec.getInt("max_detections"))
                .build()
            return ShelfCounter(ObjectDetector.createFromOptions(context, options))
        }

        private fun product(detection: Detection): Product {
            val category = detection.categories().first()
            val box = detection.boundingBox()
            // MediaPipe cuts left, top, width and height down to whole pixels; on average each lost half of one.
            val whole = RectF(box.left + 0.5f, box.top + 0.5f, box.right + 1f, box.bottom + 1f)
            return Product(category.categoryName(), category.score(), whole)
        }
    }
}
